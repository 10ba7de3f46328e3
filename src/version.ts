/** The version in package.json, one folder above this file as source and in the bundle. */

import { readFileSync } from 'node:fs'

const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8')

export const VERSION = (JSON.parse(text) as { readonly version: string }).version
