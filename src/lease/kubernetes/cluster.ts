/** An API server, and who we are to it. */

import { readFile } from 'node:fs/promises'
import { RegistryError } from '../registry.ts'

export interface Cluster {
  /** A URL without a slash at its end: `https://10.96.0.1:443`. */
  readonly server: string
  /** Asked before each request, because what they are read from is renewed. @throws {RegistryError} `unavailable` */
  readonly credentials: () => Promise<Credentials>
}

/** What Node's TLS takes, and the token that goes with each request. */
export interface Credentials {
  readonly token?: string
  readonly ca?: Buffer
  readonly cert?: Buffer
  readonly key?: Buffer
  /** The name in the server's certificate, if not that in the URL. */
  readonly servername?: string
  readonly rejectUnauthorized?: boolean
}

/** @param where As errors name it. @throws {RegistryError} `invalid` */
export function parseServer(text: string, where: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '') {
    throw unusable(`${where}: ${JSON.stringify(text)} is not a URL such as https://HOST:6443`)
  }
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`
}

/** A file that may be half renewed: what is missing now may be there later. @throws {RegistryError} `unavailable` */
export async function readSecret(path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (cause) {
    throw new RegistryError('unavailable', (cause as Error).message, { cause })
  }
}

/** In flannel's words. */
export function unusable(problem: string, options?: ErrorOptions): RegistryError {
  return new RegistryError('invalid', `fail to create kubernetes config: ${problem}`, options)
}
