"""Effects computed at the model's size, carried to a photograph's own pixels.

`photo` reads the photograph whole and writes it again, `placement` says where in it the model's square lies, and
`carry` brings an effect there. NumPy arrays in, NumPy arrays out: which engine computed the effect is nobody's
business here.
"""
