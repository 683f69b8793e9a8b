"""From Major TOM on the Hugging Face hub to an archive on disk: the cells and columns that are asked for, and no more."""

from copgen.download.report import Report
from copgen.download.request import Request
from copgen.download.run import download, verify

__all__ = ["Report", "Request", "download", "verify"]
