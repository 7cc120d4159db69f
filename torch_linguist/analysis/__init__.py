"""What a model has learned: loss by slice, sensitivity, heatmaps, embeddings, calibration, as one page."""

from torch_linguist.analysis.analysis import Analysis, analyze
from torch_linguist.analysis.analysis_settings import PARTS, AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun

__all__ = ["PARTS", "Analysis", "AnalysisSettings", "AnalyzedRun", "analyze"]
