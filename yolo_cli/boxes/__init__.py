"""Boxes: conversion between formats, IoU and non-maximum suppression."""
