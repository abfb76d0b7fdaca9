"""The variable of the film, beside the run file: found when climlstm is started in this folder."""

from climlstm.plugins import Variable

BRIGHTNESS = Variable("brightness", "Brightness", units="1")
