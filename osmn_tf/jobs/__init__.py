"""Whole pieces of work, from an options object to files on disk: interruptible, resumable, without argparse."""
