"""The fused time loop of the ConvLSTM; nobody need read it to change a network."""
