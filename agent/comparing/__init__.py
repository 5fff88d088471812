"""Two runs held against each other: questions, replies, calls, results and pictures, the first difference first."""

from keyeloop.agent.comparing.compare import Comparison, Difference, compare
from keyeloop.agent.comparing.pictures import PictureDifference

__all__ = ["Comparison", "Difference", "PictureDifference", "compare"]
