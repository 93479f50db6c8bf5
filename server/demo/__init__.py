"""The demo: simulated card transactions, a model, a bundle, a server, a replay.

Nothing here is imported by the serving process. `simulator` makes transactions, `features` turns
them into the 15 model inputs, `training` fits and exports a model, `replay` sends the test week
through the fast door, `report` shows what happens, and `run` puts them in order.
"""
