"""`iberis report`: what was trained, on what, and how good it is, as one page that can be read on its own.

records.py, evaluations.py and data.py read run folders; series.py makes curves of them; tables.py, training.py,
published.py and summary.py say it in Markdown; plots.py draws; document.py puts all together. No torch here.
"""
