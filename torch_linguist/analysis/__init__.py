"""What a model has learned: loss by slice, context sensitivity, heatmaps, embeddings and calibration, as one page."""

from torch_linguist.analysis.analysis import Analysis, analyze
from torch_linguist.analysis.analysis_figures import draw_attention
from torch_linguist.analysis.analysis_settings import PARTS, AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun, short_labels

__all__ = ["PARTS", "Analysis", "AnalysisSettings", "AnalyzedRun", "analyze", "draw_attention", "short_labels"]
