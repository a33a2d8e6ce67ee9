"""Inertial motion between images, and its fusion with the camera's."""
