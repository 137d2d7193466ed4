"""Linear recurrences over whole sequences: the states of all steps, in parallel forms.

A state that is multiplied by no kernel, `h' = a * h + b`, leaves little to a loop: all
products are computed for many steps at once, and what remains can be divided in time.
"""
