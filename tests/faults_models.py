def models(net): pass
