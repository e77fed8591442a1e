"""How fast, how large, how exact: every measurement behind `nonlocalseg benchmark`, with what the papers published beside.

`measuring` compares callables, `tables` holds results; `blocks`, `networks`, `steps` and `loading` say what is compared,
`published` what the papers measured.
"""
