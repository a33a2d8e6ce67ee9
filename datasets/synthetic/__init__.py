"""Drives in the layout of KITTI, made from a seed, with the truth that KITTI does not have."""
