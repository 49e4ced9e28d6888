"""What an update does with a gradient: optimizers, their groups of parameters, the learning rate."""
