/** A kubeconfig, as kubectl reads it: the server and the user of its current context. */

import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { parse } from 'yaml'
import { type Cluster, type Credentials, parseServer, readSecret, unusable } from './cluster.ts'
import { field } from './node.ts'

/** What a program or another person would have to say: not done, and never passed over in silence. */
const REFUSED = ['exec', 'auth-provider', 'username', 'password', 'as', 'as-uid', 'as-groups']

/** @param apiUrl Goes before the server of the file; empty: that. @throws {RegistryError} `invalid` */
export async function readKubeconfig(path: string, apiUrl = ''): Promise<Cluster> {
  const config = new Kubeconfig(path, await readYaml(path))
  const name = config.text(config.root, 'current-context', 'the file')
  if (name === undefined) throw unusable(`${path}: it has no current-context`)
  const context = config.named('context', name)
  const clusterName = config.text(context, 'cluster', `context ${name}`)
  const userName = config.text(context, 'user', `context ${name}`)
  const cluster = clusterName === undefined ? undefined : config.named('cluster', clusterName)
  const user = userName === undefined ? undefined : config.named('user', userName)
  const where = `cluster ${clusterName}`
  if (config.text(cluster, 'proxy-url', where) !== undefined)
    throw unusable(`${path}: ${where} has a proxy-url, which is not supported`)
  for (const word of REFUSED) {
    if (field(user, word) === undefined) continue
    throw unusable(
      `${path}: user ${userName} has ${word}, which is not supported: use a token or a certificate`,
    )
  }
  const server = apiUrl === '' ? config.text(cluster, 'server', where) : apiUrl
  if (server === undefined) throw unusable(`${path}: ${where} has no server`)
  return { server: parseServer(server, path), credentials: credentialsOf(config, cluster, user) }
}

/** What is wrong is said at once; the files behind it are read when they are needed. */
function credentialsOf(config: Kubeconfig, cluster: unknown, user: unknown): Cluster['credentials'] {
  const ca = config.material(cluster, 'certificate-authority', 'the cluster')
  const cert = config.material(user, 'client-certificate', 'the user')
  const key = config.material(user, 'client-key', 'the user')
  const token = config.token(user)
  const servername = config.text(cluster, 'tls-server-name', 'the cluster')
  const skip = field(cluster, 'insecure-skip-tls-verify') === true
  if ((cert === undefined) !== (key === undefined)) {
    throw unusable(`${config.path}: a client certificate and its key go together`)
  }
  return async (): Promise<Credentials> => ({
    ...(ca && { ca: await ca() }),
    ...(cert && { cert: await cert() }),
    ...(key && { key: await key() }),
    ...(token && { token: (await token()).toString().trim() }),
    ...(servername !== undefined && { servername }),
    ...(skip && { rejectUnauthorized: false }),
  })
}

type Material = () => Promise<Buffer>

class Kubeconfig {
  readonly path: string
  readonly root: unknown

  constructor(path: string, root: unknown) {
    this.path = path
    this.root = root
  }

  /** The one of that name in `contexts`, `clusters` or `users`. */
  named(kind: 'context' | 'cluster' | 'user', name: string): unknown {
    const list = field(this.root, `${kind}s`)
    const found = Array.isArray(list) ? list.find((each) => field(each, 'name') === name) : undefined
    if (found === undefined) throw unusable(`${this.path}: it has no ${kind} ${JSON.stringify(name)}`)
    return field(found, kind)
  }

  /** Empty is absent. @param where As errors name it. */
  text(value: unknown, name: string, where: string): string | undefined {
    const found = field(value, name)
    if (found === undefined || found === null || found === '') return undefined
    if (typeof found === 'string') return found
    throw unusable(`${this.path}: ${name} of ${where} is not a text`)
  }

  /** PEM: in the file itself, which goes first, or in a file of its own. */
  material(value: unknown, name: string, where: string): Material | undefined {
    const data = this.text(value, `${name}-data`, where)
    if (data !== undefined) {
      const pem = Buffer.from(data, 'base64')
      return async () => pem
    }
    return this.#file(this.text(value, name, where))
  }

  /** A file goes before a token in the kubeconfig itself. */
  token(user: unknown): Material | undefined {
    const file = this.#file(this.text(user, 'tokenFile', 'the user'))
    const token = this.text(user, 'token', 'the user')
    return file ?? (token === undefined ? undefined : async () => Buffer.from(token))
  }

  /** A path counts from the folder of the kubeconfig. */
  #file(path: string | undefined): Material | undefined {
    return path === undefined ? undefined : () => readSecret(resolve(dirname(this.path), path))
  }
}

async function readYaml(path: string): Promise<unknown> {
  try {
    return parse(await readFile(path, 'utf8'))
  } catch (cause) {
    throw unusable(`${path}: ${(cause as Error).message}`, { cause })
  }
}
