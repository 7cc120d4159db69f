"""One module for each export format; every subclass of `ExportFormat` in this package is an option of `tl-export`."""
