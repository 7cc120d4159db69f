"""The configuration files, one folder a group; shipped in the wheel as `torch_linguist.configs`."""
