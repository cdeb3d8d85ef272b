"""A build backend of a few lines (PEP 517): what PKG-INFO says becomes a wheel of one module."""

import os
import zipfile

import tiny_helper


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with open("PKG-INFO", encoding="utf-8") as file:
        fields = dict(line.strip().split(": ", 1) for line in file)
    project, version = fields["Name"], fields["Version"]
    info = f"{project}-{version}.dist-info"
    files = {
        f"{project}/__init__.py": f'VERSION = "{version}"\nBUILT_WITH = "{tiny_helper.VERSION}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.2\nName: {project}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tiny\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{info}/RECORD"
    files[record] = "".join(f"{name},,\n" for name in [*files, record])
    name = f"{project}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
    return name
