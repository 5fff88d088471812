"""Keye-VL-2.0 in plain torch: the reference that everything else is tested against."""
