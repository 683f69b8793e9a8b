"""What does every statistic of the rows mean, and who defined it?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """A statistic: its name, or the beginning of several (ending in a colon or a space); what it is; where it comes from."""

    name: str
    words: str
    reference: str = ""

    def means(self, statistic: str) -> bool:
        return statistic.startswith(self.name) if self.name[-1] in ": " else statistic == self.name


UNITS = ("Errors are in the units of scoring (Sentinel-2: digital numbers, reflectance x 10000; radar: dB; elevation: metres; place: "
         "kilometres; date: days; pictures: levels of 0 to 255). What begins with \"published\" is in the published evaluator's "
         "convention: reflectance, dB clipped to -50..10, images scaled by the truth's own least and greatest value.")
DEFINITIONS = (
    Definition("samples", "The share of the samples asked for that are there."),
    Definition("error", "Sample less observation."),
    Definition("absolute error", "The size of the error; its mean over all pixels is the MAE."),
    Definition("squared error", "The square of the error; the root of its mean is the RMSE."),
    Definition("published absolute error", "The absolute error in published units."),
    Definition("published squared error", "The squared error in published units."),
    Definition("published scaled squared error", "The squared error of images scaled to 0..1 by the truth's own range; PSNR is -10 log10 "
               "of its mean over all pixels of all images."),
    Definition("published ssim", "The structural similarity of images scaled to 0..1 by the truth's own range.",
               "Wang et al. 2004, doi 10.1109/TIP.2003.819861"),
    Definition("ssim", "The structural similarity with a fixed data range (10000 DN, 50 dB, 1000 m, 255 levels).",
               "Wang et al. 2004, doi 10.1109/TIP.2003.819861"),
    Definition("psnr", "The peak signal-to-noise ratio of an image with that range; the mean over images."),
    Definition("mean", "The mean of a sample's band."),
    Definition("truth mean", "The mean of the observation's band."),
    Definition("slope", "The slope of the radial power spectrum on logarithmic axes: how fast detail fades.",
               "van der Schaaf and van Hateren 1996, doi 10.1016/0042-6989(96)00002-8"),
    Definition("truth slope", "The slope of the observation's spectrum."),
    Definition("hits:", "hits:a:b is the share of pixels whose true class is a and whose drawn class is b: a confusion table, from which "
               "come top-1 accuracy, IoU and F1."),
    Definition("kilometres", "The great-circle distance to the true place, on a sphere of 6371 km."),
    Definition("days", "The distance to the true date in days."),
    Definition("days of year", "The distance in the round of the seasons, whatever the years."),
    Definition("months", "The difference of the months' numbers, without wrap (December to January is 11), as published."),
    Definition("same month", "Whether the month is right."),
    Definition("same year", "Whether the year is right."),
    Definition("crps", "The continuous ranked probability score, fair estimator: the mean distance of the samples to the truth less half "
               "the mean distance between two samples. It has the truth's unit, is lowest in expectation where samples are drawn as the "
               "truth is, and is the absolute error for a single value.",
               "Gneiting and Raftery 2007, doi 10.1198/016214506000001437; Ferro 2014, doi 10.1002/qj.2270"),
    Definition("tile crps", "The CRPS of tiles' means.", "as crps"),
    Definition("energy score", "The CRPS of vectors: all bands of a row at a pixel, or a place (great-circle distances) or date (days).",
               "Gneiting and Raftery 2007, doi 10.1198/016214506000001437"),
    Definition("variance", "The variance between samples at a pixel (m - 1 in the denominator)."),
    Definition("spread", "The variance between samples times (m + 1) / m: what the squared error of their mean is in a perfect ensemble.",
               "Fortin et al. 2014, doi 10.1175/JHM-D-14-0008.1"),
    Definition("skill", "The squared error of the samples' mean.", "Fortin et al. 2014, doi 10.1175/JHM-D-14-0008.1"),
    Definition("tile spread", "The spread of tiles' means."),
    Definition("tile skill", "The squared error of the samples' mean of a tile's mean."),
    Definition("error of mean", "The absolute error of the samples' mean."),
    Definition("rank:", "rank:k:m is the share of pixels whose truth is larger than k of its m samples, ties at random. All ranks are as "
               "frequent in a perfect ensemble.", "Hamill 2001, Monthly Weather Review 129, 550-560"),
    Definition("tile rank:", "The rank of the truth's tile mean among those of the samples."),
    Definition("variogram score", "How well the samples' differences between neighbouring pixels (1, 2, 4, 8 apart) are those of the "
               "truth: texture.", "Scheuerer and Hamill 2015, doi 10.1175/MWR-D-14-00269.1"),
    Definition("reliability:", "reliability:c:k:m is how often the truth is class c among the pixels where k of m samples say so; the "
               "weight is the number of these pixels.", "Murphy and Winkler 1977, Applied Statistics 26, 41-47"),
    Definition("brier", "The squared distance of the classes' probabilities (shares of samples) to the truth's class, summed over "
               "classes.", "Brier 1950, Monthly Weather Review 78, 1-3"),
    Definition("fair brier", "The Brier score less what the number of samples adds to it.", "Ferro 2014, doi 10.1002/qj.2270"),
    Definition("entropy", "The entropy of the classes' probabilities at a pixel, in bits."),
    Definition("spread km", "The mean distance between two samples of the place."),
    Definition("spread days", "The mean distance between two samples of the date, in the round of the seasons."),
    Definition("nn accuracy", "The share of samples and true observations whose nearest neighbour is of their own kind: near 0.5 where the "
               "two sets cannot be told apart, 1 where they never mix.", "Lopez-Paz and Oquab 2017, arXiv 1610.06545"),
    Definition("truth nn accuracy", "What chance gives where both sets are of one distribution, for sets of these sizes."),
    Definition("precision", "The share of samples that lie within the true observations' neighbourhoods (k = 5).",
               "Kynkäänniemi et al. 2019, arXiv 1904.06991"),
    Definition("recall", "The share of true observations that lie within the samples' neighbourhoods (k = 5): how much of what is "
               "possible is covered.", "Kynkäänniemi et al. 2019, arXiv 1904.06991"),
    Definition("intra distance", "The mean distance between two samples of a tile, as vectors of band means (classes: of shares)."),
    Definition("truth intra distance", "The mean distance between two true observations of that ground."),
    Definition("mmd", "The squared maximum mean discrepancy, unbiased, with a Gaussian kernel: 0 in expectation for equal distributions.",
               "Gretton et al. 2012, JMLR 13, 723-773"),
    Definition("wasserstein", "The Wasserstein-1 distance between the samples' band means and those of true observations.",
               "Villani 2009, remark 2.19"),
    Definition("pixel wasserstein", "The Wasserstein-1 distance between all pixels of all samples and all of the true observations."),
    Definition("range coverage", "The share of the true observations' range of a band mean that the samples' range covers."),
    Definition("consistency ", "A measure of several layers of one sample that physics ties together; its unit ends its name."),
    Definition("truth consistency ", "A measure of consistency of the observation's own layers."),
    Definition("moved", "The squared distance of the samples' mean when a given layer is another cell's, less its sampling variance."),
    Definition("true moved", "The squared distance of the means of true observations of both."),
    Definition("nearest training", "The distance of a sample's thumbnail to the nearest training patch."),
    Definition("nearest held-out", "The distance to the nearest patch that was not trained on."),
    Definition("nearer training", "Whether the training patch is nearer: half of the time, where nothing was memorised."),
    Definition("resnet50 ", "The measures of sets in the features of an ImageNet ResNet-50."),
    Definition("inception ", "The measures of sets in the features of TensorFlow's Inception-v3, by which the FID is made.",
               "Heusel et al. 2017, arXiv 1706.08500"),
    Definition("thumbnails ", "The measures of sets by the means of 8 x 8 blocks of every picture, less its brightness and contrast."),
    Definition("lpips ", "The measures of sets by perceptual distances.", "Zhang et al. 2018, arXiv 1801.03924"),
)


def definition(statistic: str) -> Definition | None:
    """What a statistic means; None where nothing is said of it."""
    return next((one for one in DEFINITIONS if one.means(statistic)), None)
