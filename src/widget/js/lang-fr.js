/** French. A string that is missing here is said in English. */
export default {
  title: 'Discussion', open: 'Ouvrir la discussion', close: 'Fermer la discussion', newChat: 'Nouvelle conversation', greeting: 'Comment puis-je aider ?',
  placeholder: 'Écrire un message', send: 'Envoyer', stop: 'Arrêter', attach: 'Ajouter des fichiers', remove: 'Retirer {name}', log: 'Conversation',
  assistant: 'Assistant', you: 'Vous', earlier: 'Messages précédents', toEnd: 'Aller à la fin', chats: 'Vos conversations', untitled: 'Conversation',
  rename: 'Renommer', save: 'Enregistrer', connecting: 'Connexion…', reconnecting: 'Connexion perdue. Nouvel essai…',
  signedOut: 'Votre session a expiré. Reconnectez-vous pour continuer ici.', refused: 'Cette discussion n’est pas disponible sur cette page.',
  working: 'En cours…', tool: 'En cours : {name}', toolDone: 'Terminé : {name}', toolFailed: 'Échec : {name}', reasoning: 'Réflexions', sources: 'Sources',
  stopped: 'Vous avez arrêté cette réponse.', retry: 'Réessayer', edit: 'Modifier', notSent: 'Pas encore envoyé. Envoi au retour de la connexion.',
  approval: 'Votre accord est nécessaire', approve: 'Accepter', reject: 'Refuser', approved: 'Vous avez accepté.', rejected: 'Vous avez refusé.',
  settled: 'Déjà répondu, ou plus en attente.', form: 'Quelques informations', submit: 'Valider', skip: 'Passer', submitted: 'Merci.', skipped: 'Passé.',
  name: 'Nom', email: 'E-mail', phone: 'Téléphone', other: 'Autre', optional: 'facultatif', otp: 'Confirmez votre identité',
  otpSent: 'Un code a été envoyé à {to}.', code: 'Code', verify: 'Vérifier', verified: 'Vérifié. Votre message est renvoyé.', human: 'Une personne devrait regarder cela.',
  copy: 'Copier', copied: 'Copié', copyFailed: 'Copie impossible', unread: '{count} non lus',
  AGENT_ERROR: 'La réponse n’a pas pu être terminée. Veuillez réessayer.', INTERNAL_ERROR: 'Une erreur est survenue. Veuillez réessayer.',
  RATE_LIMITED: 'Trop de messages en peu de temps. Attendez un instant.', LLM_UNAVAILABLE: 'L’assistant ne peut pas répondre pour le moment.',
};
