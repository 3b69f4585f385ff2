def models(net):
    pass
