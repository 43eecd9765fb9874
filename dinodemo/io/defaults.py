"""Defaults that the engine, the tasks, the page and the commands share."""

RESOLUTION = 518  # side of a square picture as the network sees it, px; what DINOv2 was trained to at the end
