"""What `scoregate drift report` makes of the server's answer: lines for a terminal, and a page.

`figures` turns reports into words and numbers, `console` prints them, `page` and `plots` make HTML
that needs nothing from anywhere.
"""
