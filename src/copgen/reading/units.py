"""In which unit are these values? Each kind of layer checks what the user stated and converts it to the table's unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from copgen.modalities import LULC_LEGEND, REFLECTANCE, Modality
from copgen.scaling import Decibel, EightBit, Legend, Linear, LogHeight

FloatArray = NDArray[np.float64]
Options = Mapping[str, str]
Samples = Mapping[str, FloatArray]               # band -> its values inside the square, [pixels]

FULL_SCALE = REFLECTANCE.full_scale              # the digital number of a reflectance of 1
OFFSET_WAY_OUT = ("give offset=1000 to subtract it, or leave it if the model was trained on digital numbers as stored "
                  "(the released weights were)")

# From ESA WorldCover 10 m 2021 v200 ("WorldCover Product User Manual" v2.0, 2022, the table of classes) to the legend of Esri's and
# Impact Observatory's annual "10 m Land Use Land Cover" of nine classes. Shrubs, grass, moss and lichen are its rangeland; mangroves are
# trees in standing water, its flooded vegetation.
WORLDCOVER = {0: 0, 10: 2, 20: 11, 30: 11, 40: 5, 50: 7, 60: 8, 70: 9, 80: 1, 90: 4, 95: 4, 100: 11}


class Quantity(Protocol):
    """What one kind of layer accepts and how it is brought to the table's unit."""

    @property
    def units(self) -> tuple[str, ...]:
        """What unit= may say; the first is the table's."""
        ...

    @property
    def options(self) -> tuple[str, ...]:
        """The options it takes besides bands."""
        ...

    @property
    def scaled(self) -> bool:
        """Whether a file's own scale and offset are applied first."""
        ...

    def is_missing(self, values: FloatArray) -> NDArray[np.bool_]:
        """Which values mean no data, besides what the file itself says."""
        ...

    def check(self, file: str, samples: Samples, options: Options) -> list[str]:
        """ValueError if the values can't be in the unit stated; warnings about what is merely suspicious."""
        ...

    def convert(self, values: FloatArray, options: Options) -> FloatArray:
        """The values in the table's unit."""
        ...


@dataclass(frozen=True)
class Reflectance:
    """Sentinel-2: digital numbers, 10,000 being a reflectance of 1 and 0 no data."""

    units: tuple[str, ...] = ("dn", "reflectance")
    options: tuple[str, ...] = ("unit", "offset")
    scaled: bool = False                         # digital numbers as stored are the unit

    def is_missing(self, values: FloatArray) -> NDArray[np.bool_]:
        return values == 0

    def check(self, file: str, samples: Samples, options: Options) -> list[str]:
        every = np.concatenate(list(samples.values()))
        if states_unit(options, "reflectance"):
            if (top := float(np.percentile(every, 99))) > 20:
                raise ValueError(f"{file}: unit=reflectance is stated, but its 99th percentile is {top:g}, and a reflectance is at most "
                                 f"about 1; leave unit=reflectance out if these are digital numbers")
        elif every.min() <= 2 and (top := float(np.percentile(every, 99))) <= 2 and (
                "B02" in samples or (every != np.round(every)).any()):
            raise ValueError(f"{file}: these look like reflectances of 0..1 (99th percentile {top:.3g}), and digital numbers "
                             f"(reflectance x {FULL_SCALE}) are needed; add unit=reflectance, or multiply the file by {FULL_SCALE}")
        numbers = {band: self.convert(values, {"unit": options.get("unit", "dn")}) for band, values in samples.items()}
        for band, values in numbers.items():
            largest = float(values.max())
            if largest > 20_000 and (median := float(np.median(values))) > 20_000:
                raise ValueError(f"{file}: the median digital number of {band} is {median:g}, above 20000 (a reflectance of 2); "
                                 f"divide the file so that a reflectance of 1 is {FULL_SCALE}")
            if largest > 32_767:
                raise ValueError(f"{file}: {band} holds {largest:g}, above the 32767 that digital numbers reach; "
                                 f"mask what is saturated or no data, or divide the file so that a reflectance of 1 is {FULL_SCALE}")
        return self._dark_warnings(file, numbers) + self._offset_warnings(file, numbers, options)

    def _dark_warnings(self, file: str, numbers: Samples) -> list[str]:
        every = np.concatenate(list(numbers.values()))
        if float(every.min()) >= 50 or (median := float(np.median(every))) >= 50:
            return []
        return [f"{file}: the median digital number of all bands is {median:g}, a reflectance of {median / FULL_SCALE:.2g}; if these are "
                f"percent, multiply the file by {FULL_SCALE // 100}"]

    def _offset_warnings(self, file: str, numbers: Samples, options: Options) -> list[str]:
        offset = offset_of(file, options)
        cirrus = numbers.get("B10")              # nothing at the ground reaches the sensor in it: 10 to 60 without the offset
        if not offset and cirrus is not None and cirrus.max() >= 900 and (low := float(np.percentile(cirrus, 1))) >= 900:
            return [f"{file}: the offset of 1000 of processing baseline 04.00 seems to be still there (the first percentile of B10 is "
                    f"{low:g}, without it 10 to 60); {OFFSET_WAY_OUT}"]
        below = float(np.mean(np.concatenate(list(numbers.values())) < offset))
        if offset and below > 0.1:
            return [f"{file}: offset={offset:g} is subtracted, but {below:.0%} of the values are smaller than it and become 1; "
                    f"leave offset out if it was subtracted before"]
        return []

    def convert(self, values: FloatArray, options: Options) -> FloatArray:
        if states_unit(options, "reflectance"):
            values = values * FULL_SCALE
        offset = offset_of("", options)
        return np.maximum(values - offset, 1) if offset else values            # 0 would mean no data


@dataclass(frozen=True)
class Radar:
    """Sentinel-1: backscatter as linear power."""

    units: tuple[str, ...] = ("linear", "dB")
    options: tuple[str, ...] = ("unit",)
    scaled: bool = True

    def is_missing(self, values: FloatArray) -> NDArray[np.bool_]:
        return np.zeros(values.shape, bool)

    def check(self, file: str, samples: Samples, options: Options) -> list[str]:
        every = np.concatenate(list(samples.values()))
        if states_unit(options, "dB"):
            if (largest := float(every.max())) > 60:
                raise ValueError(f"{file}: unit=dB is stated, but it holds {largest:g} and backscatter stays below about 40 dB; "
                                 f"leave unit=dB out if this is linear power")
            if float(every.min()) >= 0:
                raise ValueError(f"{file}: unit=dB is stated, but no value is negative; leave unit=dB out if this is linear power")
            return []
        if (negative := float((every < 0).mean())) > 0.01:
            raise ValueError(f"{file}: {negative:.0%} of the values are negative, and linear power can't be; "
                             f"add unit=dB if these are decibels")
        median = float(np.median(every)) if every.max() > 10 else 0.0          # where it can matter: sorting is slow
        if median > 100:
            raise ValueError(f"{file}: the median is {median:g}, and linear power is mostly below 1; these look like uncalibrated digital "
                             f"numbers: calibrate to gamma-naught and correct for the terrain (RTC) first")
        if median > 10:
            return [f"{file}: the median is {median:g}, and linear power is mostly below 1; if these are decibels without their sign, "
                    f"negate the file and add unit=dB"]
        if (zero := float((every <= 0).mean())) > 0.01:
            return [f"{file}: {zero:.0%} of the radar values are 0, often the mark of no data; they are taken as the smallest power"]
        return []

    def convert(self, values: FloatArray, options: Options) -> FloatArray:
        return 10 ** (values / 10) if states_unit(options, "dB") else values


@dataclass(frozen=True)
class Height:
    """Elevation in metres."""

    units: tuple[str, ...] = ("m",)
    options: tuple[str, ...] = ("unit",)
    scaled: bool = True
    lowest: float = -12_000
    highest: float = 9_000

    def is_missing(self, values: FloatArray) -> NDArray[np.bool_]:
        return np.zeros(values.shape, bool)

    def check(self, file: str, samples: Samples, options: Options) -> list[str]:
        every = np.concatenate(list(samples.values()))
        low, high = float(every.min()), float(every.max())
        if low < self.lowest or high > self.highest:
            raise ValueError(f"{file}: heights from {low:g} to {high:g} are not metres on Earth ({self.lowest:g}..{self.highest:g}); "
                             f"convert the file to metres, or tag its no data")
        if (below := float((every < 0).mean())) > 0.5:
            return [f"{file}: {below:.0%} of the heights are below 0 m, which the model takes as 0"]
        return []

    def convert(self, values: FloatArray, options: Options) -> FloatArray:
        return values


@dataclass(frozen=True)
class Brightness:
    """A picture that lies on the ground: whole numbers 0..255, all of them values."""

    units: tuple[str, ...] = ("8-bit",)
    options: tuple[str, ...] = ()
    scaled: bool = False

    def is_missing(self, values: FloatArray) -> NDArray[np.bool_]:
        return np.zeros(values.shape, bool)

    def check(self, file: str, samples: Samples, options: Options) -> list[str]:
        every = np.concatenate(list(samples.values()))
        low, high = float(every.min()), float(every.max())
        if low < 0 or high > 255 or (every != np.round(every)).any():
            raise ValueError(f"{file}: holds values from {low:g} to {high:g}, and a picture has whole numbers from 0 to 255; if this is a "
                             f"layer to draw a picture of, add as=layer")
        return []

    def convert(self, values: FloatArray, options: Options) -> FloatArray:
        return values


@dataclass(frozen=True)
class Classes:
    """Class codes; land cover also as indices into the legend, or as ESA WorldCover's codes."""

    legend: Legend
    units: tuple[str, ...] = ()
    scaled: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        return ("codes",) if len(self.schemes) > 1 else ()

    @property
    def schemes(self) -> Mapping[str, Mapping[int, int]]:
        """Name of a coding -> its codes -> the legend's; the first is the table's own."""
        own = {code: code for code in self.legend.codes}
        if self.legend != LULC_LEGEND:
            return {"own": own}
        return {"esri": own, "index": dict(enumerate(self.legend.codes)), "worldcover": WORLDCOVER}

    def is_missing(self, values: FloatArray) -> NDArray[np.bool_]:
        return np.zeros(values.shape, bool)

    def scheme(self, options: Options) -> str:
        return options.get("codes", next(iter(self.schemes))).lower()

    def check(self, file: str, samples: Samples, options: Options) -> list[str]:
        every = np.concatenate(list(samples.values()))
        found, name = set(np.unique(every).tolist()), self.scheme(options)
        strange = sorted(found - set(self.schemes[name]))
        if strange:
            others = [other for other, codes in self.schemes.items() if found <= set(codes)]
            way_out = (" or ".join(f"add codes={other}" for other in others) + ", which has them all") if others else "recode the file"
            shown = ", ".join(f"{code:g}" for code in strange[:5]) + (", ..." if len(strange) > 5 else "")
            kind = f"codes={name} ({self._listed(name)})" if self.options else f"its legend ({self._listed(name)})"
            raise ValueError(f"{file}: holds the class codes {shown}, which are not among {kind}; {way_out}")
        return self._warnings(file, every, found, name, options)

    def _warnings(self, file: str, every: FloatArray, found: set[float], name: str, options: Options) -> list[str]:
        warned = []
        if self.options and "codes" not in options and found <= set(self.schemes["index"]) and found != {0} and max(found) > 2:
            warned.append(f"{file}: the class codes {', '.join(f'{c:g}' for c in sorted(found))} are taken as Esri's, but could be indices "
                          f"into the legend; state codes=esri or codes=index")
        nothing = [code for code, ours in self.schemes[name].items() if self.legend.names[self.legend.codes.index(ours)] == "no data"]
        if (share := float(np.isin(every, nothing).mean())) > 0.05:
            warned.append(f"{file}: {share:.0%} of the square is of the class 'no data'")
        return warned

    def _listed(self, name: str) -> str:
        return ", ".join(str(code) for code in self.schemes[name])

    def convert(self, values: FloatArray, options: Options) -> FloatArray:
        codes = self.schemes[self.scheme(options)]
        known = np.array(sorted(codes))
        ours = np.array([codes[int(code)] for code in known], np.float64)
        return ours[np.searchsorted(known, np.clip(values, known[0], known[-1]))]


def quantity_of(row: Modality) -> Quantity:
    """The kind of quantity that a row of the table holds."""
    match row.scale:
        case Linear():
            return Reflectance()
        case Decibel():
            return Radar()
        case LogHeight():
            return Height()
        case EightBit():
            return Brightness()
        case Legend():
            return Classes(row.scale)
    raise ValueError(f"{row.name} is not read from files")


def check_options(product: str, rows: Sequence[Modality], options: Options) -> None:
    """ValueError for an option that the rows don't take, or a value that it can't have."""
    quantity = quantity_of(rows[0])
    for key, value in options.items():
        if key not in ("bands", *quantity.options):
            raise ValueError(f"{product}: takes no option {key}={value}; it takes {', '.join(('bands', *quantity.options))}")
        if key == "unit" and value.lower() not in [unit.lower() for unit in quantity.units]:
            raise ValueError(f"{product}: unit={value} is not known; unit is one of {', '.join(quantity.units)}")
        if key == "codes" and isinstance(quantity, Classes) and value.lower() not in quantity.schemes:
            raise ValueError(f"{product}: codes={value} is not known; codes is one of {', '.join(quantity.schemes)}")
    offset_of(product, options)


def states_unit(options: Options, unit: str) -> bool:
    """Whether the user says that the values are in this unit."""
    return options.get("unit", "").lower() == unit.lower()


def offset_of(what: str, options: Options) -> float:
    """The number to subtract from digital numbers, 0 if none is given."""
    text = options.get("offset", "0")
    try:
        offset = float(text)
    except ValueError:
        raise ValueError(f"{what}: offset={text} is not a number; write offset=1000 to subtract 1000") from None
    if not 0 <= offset <= FULL_SCALE:
        raise ValueError(f"{what}: offset={text} must lie in 0..{FULL_SCALE}: it is subtracted; write offset=1000 for an added 1000")
    return offset
