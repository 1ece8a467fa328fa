/* indexd:writing.reembed.clear */
DELETE FROM indexd.reembedded
 WHERE namespace = %(namespace)s
