"""Reports: HTML pages and text about finished work, and what is recorded for them.

Jobs import `reports.evidence` and `reports.thumbnails` to record what a page shows; commands
import `reports.job` and `reports.contact_sheet`. Nothing here imports a job.
"""
