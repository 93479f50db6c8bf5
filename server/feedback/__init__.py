"""Outcomes: what was decided, what came of it, and how well the models did.

`records` keeps decisions until their outcomes come, and joins the two, on disk. `quality` turns
what is joined into figures with intervals. Nothing here is on the path of a scoring request.
"""
