"""Private interfaces of torch that exporting depends on. A failure here means that a new torch has changed them."""

import inspect


def test_aotinductor_compiles_and_loads_packages() -> None:
    from torch._inductor import aoti_compile_and_package, aoti_load_package, config

    assert {"package_path", "inductor_configs"} <= inspect.signature(aoti_compile_and_package).parameters.keys()
    assert next(iter(inspect.signature(aoti_load_package).parameters)) == "path"
    assert hasattr(config.aot_inductor, "metadata")
