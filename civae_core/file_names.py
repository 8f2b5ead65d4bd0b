"""Names of files that one part writes and others look for, with the size limits of those that several read.

This module imports nothing, so that what the shell completes stays quick.
"""

MANIFEST = "dataset.yml"
"""The manifest of prepared data; a folder with it is complete."""
MOST_MANIFEST_BYTES = 2**22
"""Size limit of dataset.yml: enough for ten thousand shards and as many columns as a table may have."""
PARTIAL = ".partial"
"""Sub-folder of prepared data for work in progress."""
REPORT_JSON = "report.json"
"""Facts about prepared data."""
MOST_REPORT_BYTES = 2**28
"""Size limit of report.json, which may list a million rejected files."""
REPORT_PAGE = "report.html"
"""The page for people, of prepared data, of a run or of a benchmark."""
EVALUATION = "evaluation.json"
"""The figures of a run."""
