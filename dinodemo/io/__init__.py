"""The shared floor: pictures, clips, archives and files; imports nothing of the package."""
