"""Which scene do these files show? Real rasters of one place, cut to the one square of ground that the model sees.

`scenes` puts it together: `bandfiles` finds the bands, `squares` chooses the ground, `rasters` reads the pixels under it, `units` checks
and converts them, `resampling` brings them onto the rows' grids, `acquired` knows the day.
"""

from copgen.reading.scenes import CopgenWarning, Date, Input, Place, parse_input, read_scene

__all__ = ["CopgenWarning", "Date", "Input", "Place", "parse_input", "read_scene"]
