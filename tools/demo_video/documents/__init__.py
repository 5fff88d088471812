"""Short documents about made-up things, written by ``keyeloop.tools.demo_video.corpus``."""
