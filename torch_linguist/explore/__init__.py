"""A good look at a corpus before training: statistics, figures, and a page that shows them."""

from torch_linguist.explore.exploration import Exploration, explore
from torch_linguist.explore.measure import Measurements, measure
from torch_linguist.explore.settings import ExploreSettings

__all__ = ["Exploration", "ExploreSettings", "Measurements", "explore", "measure"]
