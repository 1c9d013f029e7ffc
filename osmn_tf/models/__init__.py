"""The networks (OSMN, ReConvNet), their modulators and their presets."""
