"""The part of panopticapi's API that mask2former stands on, for machines without panopticapi.

It lies on no package index. An installed one is found before this one.
"""
