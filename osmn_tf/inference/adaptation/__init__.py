"""Adapting a network to one video, from the frames whose masks are known."""
