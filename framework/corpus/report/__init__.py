"""The report on a preparation: what came in, what was dropped and why, and what is left, to be read by people.

Tasks gather statistics while documents pass (`observe`, `statistics`, `frequent`); `content` puts them together
with the manifest (`report.json`), `page` makes them a page to look at (`report.html`).

Importing this package costs nothing.
"""
