"""What a model has learned: loss by slice, sensitivity, heatmaps, embeddings, calibration, as one page."""

from torch_linguist.analysis.analysis import Analysis, analyse
from torch_linguist.analysis.analyzed_run import Subject
from torch_linguist.analysis.settings import PARTS, AnalysisSettings

__all__ = ["PARTS", "Analysis", "AnalysisSettings", "Subject", "analyse"]
