"""Which scene do these files show? Real rasters of one place, cut to the one square of ground that the model sees.

`scenes` puts it together: `bandfiles` finds the bands, `squares` chooses the ground, `rasters` reads the pixels under it, `units` checks
and converts them, `resampling` brings them onto the rows' grids, `drawn` makes thumbnails of them, `pictures` opens those that are made
already, `acquired` knows the day.
"""

from copgen.reading.scenes import CopgenWarning, Date, Input, Place, parse_input, read_scene, tiles_of

__all__ = ["CopgenWarning", "Date", "Input", "Place", "parse_input", "read_scene", "tiles_of"]
