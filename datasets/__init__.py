"""Data on disk and in memory: file formats, calibration, and the matching of IMU to images."""
