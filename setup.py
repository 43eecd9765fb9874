"""Say what pyproject.toml cannot: two folders of the top lie inside of the package once it is installed."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["dinodemo", "dinodemo.*"]), "dinodemo.assets", "dinodemo.weights"],
    package_dir={"dinodemo.assets": "assets", "dinodemo.weights": "weights"},
    package_data={
        "dinodemo": ["py.typed"],
        "dinodemo.web": ["*.css", "*.js", "*.json", "locales/*.json", "*/*.css", "*/*.html", "*/*.js"],
        "dinodemo.assets": ["*.jpg", "segmentation/*", "anomaly/*", "depth/*.json", "depth/*/*", "CREDITS*"],
        "dinodemo.weights": ["manifest.json", "README.md", "*.safetensors"],  # not the folders that are built there
    },
)
