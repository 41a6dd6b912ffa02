"""Pictures and pages for people.

- ``draw``: cells outlined on images
- ``counts``: a table of cells per image and class
- ``curves``: curves of a run
- ``plots``: plots of a report
- ``viewers``: images with layers to show and hide
- ``worst_errors``: missed cells and false positives, counted by cause and drawn
- ``html``: self-contained pages
- ``score_rows``: tables of scores, with intervals
- ``run_report``: the page about a run
"""
