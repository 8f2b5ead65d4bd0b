"""Apply effects computed at the model's size to a photograph at its original size.

`photo` reads the whole photograph and writes it again, `placement` says where the model's square lies in it, and
`carry` transfers an effect there. Inputs and outputs are NumPy arrays, so it makes no difference which engine
computed the effect.
"""
