"""The report on a run, `report.html`: made from the files of the run directory alone, so of any run at any time.

Importing this package costs nothing.
"""
