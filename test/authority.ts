/** A certificate authority for tests: PEM files, made by openssl. */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

export interface KeyPair {
  readonly cert: string
  readonly key: string
}

const KEYS = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-noenc']
const DAYS = ['-days', '2']

export class Authority implements KeyPair {
  readonly cert: string
  readonly key: string
  readonly #directory: string

  constructor(directory: string, name: string) {
    this.#directory = directory
    this.cert = join(directory, `${name}.crt`)
    this.key = join(directory, `${name}.key`)
    this.#openssl(
      'req',
      '-x509',
      ...KEYS,
      '-keyout',
      this.key,
      '-out',
      this.cert,
      '-subj',
      `/CN=${name}`,
      ...DAYS,
    )
  }

  /** @param extensions As in openssl.cnf: `subjectAltName=IP:127.0.0.1`. */
  sign(name: string, subject: string, extensions: readonly string[]): KeyPair {
    const path = (suffix: string): string => join(this.#directory, `${name}.${suffix}`)
    this.#openssl('req', ...KEYS, '-keyout', path('key'), '-out', path('csr'), '-subj', subject)
    writeFileSync(path('ext'), `${extensions.join('\n')}\n`)
    const by = ['-CA', this.cert, '-CAkey', this.key, '-CAcreateserial', ...DAYS, '-extfile', path('ext')]
    this.#openssl('x509', '-req', '-in', path('csr'), '-out', path('crt'), ...by)
    return { cert: path('crt'), key: path('key') }
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: this.#directory, stdio: ['ignore', 'ignore', 'pipe'] })
  }
}
