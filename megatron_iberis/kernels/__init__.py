"""The operations worth a kernel, one folder each, all of one form.

`__init__` has the signature, the shapes, and the implementation that is taken; `reference` is the short oracle that
every implementation is tested against; `portable` runs wherever torch does. `choice` says what is taken.
"""
