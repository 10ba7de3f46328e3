/**
 * Where the API server is: in flannel's order. A URL goes before the server of a kubeconfig, and without either we are in
 * a pod, which is told by its environment.
 */

import { join } from 'node:path'
import { type Cluster, type Credentials, parseServer, readSecret, unusable } from './cluster.ts'

export interface ClusterChoice {
  /** Path; empty: none. */
  readonly kubeconfig?: string
  /** Empty: that of the kubeconfig, or of the pod. */
  readonly apiUrl?: string
  /** The process environment. */
  readonly variables: Readonly<Record<string, string | undefined>>
  /** The folder with the token of the pod and the CA's certificate. */
  readonly serviceAccount?: string
}

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'

/** @throws {RegistryError} `invalid` */
export async function findCluster(choice: ClusterChoice): Promise<Cluster> {
  const { kubeconfig = '', apiUrl = '' } = choice
  if (kubeconfig !== '') {
    const { readKubeconfig } = await import('./kubeconfig.ts')
    return readKubeconfig(kubeconfig, apiUrl)
  }
  if (apiUrl !== '') return { server: parseServer(apiUrl, '-kube-api-url'), credentials: async () => ({}) }
  return clusterOfPod(choice)
}

function clusterOfPod({ variables, serviceAccount = SERVICE_ACCOUNT }: ClusterChoice): Cluster {
  const { KUBERNETES_SERVICE_HOST: host = '', KUBERNETES_SERVICE_PORT: port = '' } = variables
  if (host === '' || port === '') {
    throw unusable(
      'this is no pod (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set): give -kubeconfig-file or -kube-api-url',
    )
  }
  const server = parseServer(`https://${host.includes(':') ? `[${host}]` : host}:${port}`, 'the environment')
  const credentials = async (): Promise<Credentials> => ({
    token: (await readSecret(join(serviceAccount, 'token'))).toString().trim(),
    ca: await readSecret(join(serviceAccount, 'ca.crt')),
  })
  return { server, credentials }
}
